// Package crash compares masters that die with a model. TestCrashMatrix (make crash, tag crash) kills a master at
// each point of each operation, and its successor at each point of its recovery. TestTorture (make torture, tag
// torture) troubles masters and workers at random.
//
// A rig (model_rig_test.go) is a host for thousands of trials: it returns errors instead of failing a test, and
// carries the model: which processes live (model_test.go), which calls were acknowledged (model_calls_test.go), what
// is registered (model_guests_test.go), and what must be true when all is at rest (model_rest_test.go).
package crash
