package main

// notifyUnix does nothing: Windows has no signals other than those of the console.
func notifyUnix(*signals) {}
