// Package world tests a master in its surroundings: beside other masters, under other users, in namespaces and
// containers, as process 1, with replaced binaries and on loaded machines; and that the documentation and the
// release are as the tests assume.
package world
