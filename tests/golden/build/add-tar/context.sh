mkdir t; echo one > t/one; mkdir t/d; ln -s ../one t/d/l; chmod 750 t/d
tar --sort=name --owner=11 --group=12 --numeric-owner --mtime=@1000000000 -cf files.tar t
gzip -n -k files.tar; rm -r t
