package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// notes are what a worker writes down of its own life, for a test to compare with
// what the master says. They survive the worker's death.
type notes struct{ file *os.File }

// takeNotes begins the notes of this instance, in a file of its own. One that finds
// its port taken, as may happen between the choice of it and this, leaves an empty
// file of another name: its end is not the master's doing.
func takeNotes(folder string, listening error) notes {
	if folder == "" {
		return notes{}
	}
	name := fmt.Sprintf("%s.%d.%s", os.Getenv("HSU_WORKER_ID"), os.Getpid(), os.Getenv("HSU_WORKER_TOKEN"))
	if errors.Is(listening, syscall.EADDRINUSE) {
		name += ".port-taken"
	}
	file, err := os.OpenFile(filepath.Join(folder, name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		fmt.Fprintln(os.Stderr, "unit:", err)
		os.Exit(1)
	}
	return notes{file}
}

// handled notes a request before it is answered: one line, written at once.
func (n notes) handled(request string) {
	if n.file != nil {
		_, _ = n.file.WriteString(request + "\n")
	}
}
