
31
/docker-image://docker.io/library/busybox:latest
WU
local://context
local.excludepatterns["b*"]!
local.includepattern	["*.txt"]
y
I
Gsha256:74ecb5d790c33a213ba00f8f43d62947df1d4dea72f5ec13353a9b943f469f0f",*ÿÿÿÿÿÿÿÿÿ2
/workÿÿÿÿÿÿÿÿÿ(ÿÿÿÿÿÿÿÿÿ
:"86ÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿÿ2
/belowÿÿÿÿÿÿÿÿÿ(ÿÿÿÿÿÿÿÿÿ
ð
I
Gsha256:a6f89fa103db8aba27c7a767e09bfc7a389274910d10d5e926babf9ecaa68d46
I
Gsha256:fa04b6a8820d9dd679e26e4fa0ce21e3e67b8034a1ba6f31352273120973707f
I
Gsha256:fa04b6a8820d9dd679e26e4fa0ce21e3e67b8034a1ba6f31352273120973707f
I
Gsha256:05121c6e99100967b998d5682a7b5089fc1fc8fbe54dc2c273948acb0edd4c6eÁ
Œ
/bin/sh
-c
Ûtest -f /in/a.txt && ! test -e /in/b.txt && ! test -e /in/c.md && test "$(cat /one)" = from-a && test "$WORD" = hi && test "$(pwd)" = /work && echo kept >/cache/k && cp /in/a.txt /out/copied && echo "$WORD" >/base/added	PATH=/binWORD=hi/work"root//in ÿÿÿÿÿÿÿÿÿ(a.txt/one ÿÿÿÿÿÿÿÿÿ(ÿÿÿÿÿÿÿÿÿ/out /base +ÿÿÿÿÿÿÿÿÿ/cache ÿÿÿÿÿÿÿÿÿ0¢
/cache(ÿÿÿÿÿÿÿÿÿ/agent ÿÿÿÿÿÿÿÿÿ0² €(
‚
K
Gsha256:5e04c388117e579184b09256112962efd09b29ce10344dbfa299ca9de390bfa9
K
Gsha256:5e04c388117e579184b09256112962efd09b29ce10344dbfa299ca9de390bfa9"f5ÿÿÿÿÿÿÿÿÿ"(
/copied/copied ÿÿÿÿÿÿÿÿÿXÿÿÿÿÿÿÿÿÿ-"%
//base/ ÿÿÿÿÿÿÿÿÿ0@Xÿÿÿÿÿÿÿÿÿ
M
K
Gsha256:abc6e73179a8a0505c3f89a7451fe04d8634a2ad3d1ec1eaf21bfc577015af32Ú
Gsha256:5e04c388117e579184b09256112962efd09b29ce10344dbfa299ca9de390bfa9Ž
llb.customnamework*
exec.mount.bind*
exec.mount.cache.sharing*
exec.mount.selector*
exec.mount.ssh*
exec.mount.cacheu
Gsha256:abc6e73179a8a0505c3f89a7451fe04d8634a2ad3d1ec1eaf21bfc577015af32*
llb.customnameresults*
	file.baseg
Gsha256:74ecb5d790c33a213ba00f8f43d62947df1d4dea72f5ec13353a9b943f469f0f
llb.customnamethe baseZ
Gsha256:a6f89fa103db8aba27c7a767e09bfc7a389274910d10d5e926babf9ecaa68d46*
	file.baseI
Gsha256:934afbef640fb6e7a81e7fa0e7096556de46b94bc8f6177dd3ac6b66b46283d3I
Gsha256:fa04b6a8820d9dd679e26e4fa0ce21e3e67b8034a1ba6f31352273120973707fZ
Gsha256:05121c6e99100967b998d5682a7b5089fc1fc8fbe54dc2c273948acb0edd4c6e*
	file.base