package main

import (
	"os"
	"os/signal"
	"syscall"
)

// grown is the memory of a worker that has grown.
var grown []byte

// grow uses 96 MiB more after a SIGUSR1.
func grow() {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	<-asked
	grown = make([]byte, 96<<20)
	for page := 0; page < len(grown); page += os.Getpagesize() {
		grown[page] = 1
	}
}
