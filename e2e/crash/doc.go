// Package crash compares masters that die with a model. TestCrashMatrix (make crash, tag crash) kills a master at
// each point of each operation, and its successor at each point of its recovery. TestTorture (make torture, tag
// torture) troubles masters and workers at random.
//
// A rig (model_rig_test.go) is a host for thousands of trials: it returns errors instead of failing a test. It has the
// masters (model_masters_test.go) and the model: which workers live (model_workers_test.go), which calls were
// acknowledged (model_calls_test.go), what is registered (model_registrations_test.go), what must be true while no
// master runs (model_test.go) and when all is at rest (model_rest_test.go), and which routes there must be
// (model_routes_test.go).
package crash
