mkdir t
echo x > t/file
ln t/file t/hard
ln -s file t/soft
ln -s /abs t/dangling
chmod 4750 t/file
tar --sort=name --owner=12 --group=34 --mtime=@5 -cf a.tar t
rm -r t
