

local://context
õ
I
Gsha256:a60212791641cbeaa3a49de4f7dff9e40ae50ec19d1be9607232037c1db16702
I
Gsha256:a60212791641cbeaa3a49de4f7dff9e40ae50ec19d1be9607232037c1db16702"Ü6ÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿ2
/a/bÿÿÿÿÿÿÿÿÿ(ÿÿÿÿÿÿÿÿÿ;ÿÿÿÿÿÿÿÿÿ**
	/a/b/madeÿÿÿÿÿÿÿÿÿcontent(ÿÿÿÿÿÿÿÿÿ1"+
/*.txt/texts/ ÿÿÿÿÿÿÿÿÿ@HXÿÿÿÿÿÿÿÿÿ2"*
/link	/followed ÿÿÿÿÿÿÿÿÿ(Xÿÿÿÿÿÿÿÿÿ
M
K
Gsha256:a723c392ddc721b4f9950f4ce7d3f71319430d2c794a492cdddcc056d717bf95Z
Gsha256:a723c392ddc721b4f9950f4ce7d3f71319430d2c794a492cdddcc056d717bf95*
	file.baseI
Gsha256:a60212791641cbeaa3a49de4f7dff9e40ae50ec19d1be9607232037c1db16702I
Gsha256:011855b3d7ed571dab74ac4e9df445de5179e3c40d307d360a7ec0937f6d2625