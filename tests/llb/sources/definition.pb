
" 
git://git.example/a/b.git#main
1/
https://web.example/f
http.filenamenamed
Œ‰
kdocker-image://registry.example/i:1@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
image.resolvemodelocal
³
I
Gsha256:54dbae812f115264dd417b40fc7d2ad4ce7989a0e87da87ff000ae95dde0c0c2
I
Gsha256:a29cb92faf2d79e825a534bed4cd0ee010a81ad0dba156a188a2b0405ffc3b5a
I
Gsha256:0bbfbf993b49c9695e188fef84b31ee94fc0e521938c56a7770e4a04b0ca5e9c"P""
/x/x ÿÿÿÿÿÿÿÿÿXÿÿÿÿÿÿÿÿÿ*""
/named/y ÿÿÿÿÿÿÿÿÿXÿÿÿÿÿÿÿÿÿ
M
K
Gsha256:9d87682c31be7f6dae91d41f058b7dcf45c6f4d1cf68e83c4569dad258605b3fI
Gsha256:54dbae812f115264dd417b40fc7d2ad4ce7989a0e87da87ff000ae95dde0c0c2I
Gsha256:a29cb92faf2d79e825a534bed4cd0ee010a81ad0dba156a188a2b0405ffc3b5aI
Gsha256:f95b0ff273f9b7e5c9424037f3a397a0ef6b51cc3aa337f60e1ee75a450200deZ
Gsha256:9d87682c31be7f6dae91d41f058b7dcf45c6f4d1cf68e83c4569dad258605b3f*
	file.baseI
Gsha256:0bbfbf993b49c9695e188fef84b31ee94fc0e521938c56a7770e4a04b0ca5e9c