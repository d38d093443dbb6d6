mkdir dir
echo f > f
ln -s f link
ln -s ../f dir/inner
ln -s dir linkdir
