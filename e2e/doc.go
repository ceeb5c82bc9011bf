// Package e2e is the parent of the end-to-end tests: the real hsu-master and hsu-worker, real processes, a real
// database, real sockets. The name of each test states the behaviour that it checks.
//
//	harness    what all suites use: programs, hosts, masters, calls, dumps, processes, faults
//	lifecycle  start, stop, restart, recovery and adoption of workers
//	state      the state directory: backups, damage, full and failing disks, limits, hostile files
//	gateway    calls through the port: routing, retries, limits, interoperation
//	units      masters that run a configuration file: six programs of different kinds, each key, faults of units
//	operate    what operators do under callers: no change loses a call, and a kill only those in flight
//	upgrade    the program of a running master replaced in its process, under load, under kills, by broken programs
//	world      the surroundings: masters beside each other, users, namespaces, containers, documentation, releases
//	crash      a master killed at each crash point, and random faults, both compared with a model
//	systemd    the service under a real systemd
//
//	go test -tags e2e -p 1 ./e2e/...
//	go test -tags e2e ./e2e/lifecycle -run TestStop
//
// HSU_E2E_TIMES sets how often the suites operate and upgrade repeat each change under load, such as 20.
// They run on Linux, need no root except for single tests, and leave no process behind: a test that leaves one
// fails. HSU_E2E_BUILD_FLAGS are passed to the build of the programs under test, for example -race. With
// HSU_E2E_UNREAPED, a worker whose master is gone is not reaped, as in a container whose first process does not reap
// orphans.
package e2e
