import click
import six

click.echo("%s %s" % (click.__name__, six.text_type("works")))
