echo f > f
echo x > x
tar --sort=name --owner=0 --group=0 --mtime=@0 -cf a.tar x
rm x
