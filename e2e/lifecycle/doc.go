// Package lifecycle tests the life of workers: how they are started, stopped and restarted, and what becomes of them
// when the master is killed, at any moment, and another one recovers.
package lifecycle
