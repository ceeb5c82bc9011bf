// Package operate tests that the changes that operators make lose no call, with and without kills of the master.
package operate
