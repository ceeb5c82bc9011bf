package process

import (
	"testing"

	"github.com/core-tools/hsu-master/identity"
)

// TestHandleTellsTheExitAfterwards checks that a master learns an exit from a handle that was kept while the
// master was dead and another process reaped the child.
func TestHandleTellsTheExitAfterwards(t *testing.T) {
	p, err := Start(Spec{Path: "/bin/sh", Args: []string{"-c", "exit 7"}})
	if err != nil {
		t.Fatal(err)
	}
	handle, err := p.Handle()
	if err != nil {
		t.Fatal(err)
	}
	defer handle.Close()
	<-p.Done()
	if exit := p.Exit(); exit.Code != 7 { // it is reaped now
		t.Fatalf("exit = %v, want code 7", exit)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	exit, known := ExitOf(handle)
	if want := (identity.Exit{Code: 7, Source: identity.ExitPidfd}); !known || exit != want {
		t.Errorf("ExitOf = %v, %v, want %v", exit, known, want)
	}
}

func TestHandleOfALivingProcessTellsNothing(t *testing.T) {
	p, err := Start(Spec{Path: "/bin/sleep", Args: []string{"1000"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = p.Signal(9)
		<-p.Done()
		_ = p.Close()
	}()
	handle, err := p.Handle()
	if err != nil {
		t.Fatal(err)
	}
	defer handle.Close()
	if exit, known := ExitOf(handle); known {
		t.Errorf("ExitOf = %v of a process that lives", exit)
	}
}
