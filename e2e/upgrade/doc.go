// Package upgrade tests the replacement of the program of a running master in its process.
package upgrade
