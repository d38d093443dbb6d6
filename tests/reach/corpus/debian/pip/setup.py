from setuptools import setup
setup(name="pipgreet", version="1", py_modules=["pipgreet"], entry_points={"console_scripts": ["pip-greet = pipgreet:main"]})
