mkdir t
echo x > t/x
tar --sort=name --owner=0 --group=0 --mtime=@0 -cf plain.tar t
gzip -n < plain.tar > named.txt
bzip2 < plain.tar > c.tar.bz2
xz < plain.tar > d.tar.xz
printf x | gzip -n > file.gz
rm -r t
