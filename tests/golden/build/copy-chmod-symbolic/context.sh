mkdir -p d/sub
echo x > d/file
echo x > d/run
chmod 600 d/file
chmod 755 d/run
chmod 711 d/sub
