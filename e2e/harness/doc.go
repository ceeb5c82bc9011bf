// Package harness runs real masters and workers for the end-to-end tests. It is only built with the tag e2e.
//
// A suite is a package of tests whose TestMain is Main. A test has a Host, a state directory on which it runs
// masters one after another, and compares the output of "hsu-master state dump" with its findings in /proc:
//
//	func TestMain(m *testing.M) { harness.Main(m) }
//
//	func TestWorkersSurviveTheMaster(t *testing.T) {
//		t.Parallel()
//		h := harness.NewHost(t, harness.Workers(2)...)
//		m := h.Start()
//		before := h.AwaitRunning(2)
//		m.Kill()
//		m = h.Start()
//		after := h.AwaitRunning(2)
//		after.WantInstances(t, before.Instances())
//		h.WantNoTwin(after)
//		h.Ask("of an adopted worker")
//		m.Stop()
//		h.WantNothingLeft()
//	}
//
// Workers gives a host reference workers, Host.Units workers with the habits of e2e/testdata/unit: such as stubborn
// ones, which ignore SIGTERM. Functions named Want report faults and continue; those named Await return when
// it is so, or fail the test after Patience. There is no other way to wait: a test never sleeps until something has
// probably happened.
//
// A master under test has crash points (HSU_CRASH_POINT, see Moments) and injected faults (HSU_FAULT_DIR), and
// reports leaks when it ends: the host fails the test for that, for a panic, and for each process that is
// left.
package harness
