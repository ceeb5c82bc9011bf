// Package e2e holds the end-to-end tests: the real hsu-master and hsu-worker,
// real processes, a real database, real sockets. Each test says by its name what
// it shows.
//
//	go test -tags e2e -race ./e2e/...
//
// They run on Linux, need no root, and leave no process behind: a test fails that
// does. HSU_E2E_BUILD_FLAGS are passed on to the build of the programs under
// test, for example -race. With HSU_E2E_UNREAPED nobody reaps a worker whose master
// is gone, as in a container whose first process does not.
package e2e
