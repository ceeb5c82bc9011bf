// Package e2e holds the end-to-end tests: the real hsu-master and hsu-worker, real processes, a real database, real
// sockets. The name of each test states the behaviour that it checks.
//
//	go test -tags e2e -race ./e2e/...
//
// They run on Linux, need no root, and leave no process behind: a test that leaves one fails. HSU_E2E_BUILD_FLAGS
// are passed to the build of the programs under test, for example -race. With HSU_E2E_UNREAPED, a worker whose
// master is gone is not reaped, as in a container whose first process does not reap orphans.
package e2e
