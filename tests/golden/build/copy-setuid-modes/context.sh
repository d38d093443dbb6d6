touch suid sgid sticky none
mkdir dir
chmod 4755 suid
chmod 2755 sgid
chmod 1777 dir
chmod 1644 sticky
chmod 000 none
chmod 644 none
