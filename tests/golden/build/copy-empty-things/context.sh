mkdir -p empty/deep
: > file
