mkdir -p sub
echo new > f
echo new > sub/new
tar --sort=name --owner=7 --group=8 --mtime=@0 -cf a.tar f sub
rm -r f sub
