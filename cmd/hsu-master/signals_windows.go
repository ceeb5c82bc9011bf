package main

// notifyUnix: Windows has no signals beyond those of the console.
func notifyUnix(*signals) {}
