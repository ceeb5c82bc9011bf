package leaks

import (
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// impatiently calls look, which looks for a leak that is there to stay.
func impatiently[T any](look func() T) T {
	defer func(d time.Duration) { patience = d }(patience)
	patience = 0
	return look()
}

func TestWhatWasThereIsNoLeak(t *testing.T) {
	block := make(chan struct{})
	defer close(block)
	go func() { <-block }()
	if err := Watch()(); err != nil {
		t.Error(err)
	}
}

func TestGoroutineThatIsLeftIsTold(t *testing.T) {
	left := Watch()
	block := make(chan struct{})
	go func() { <-block }()
	if err := impatiently(left); err == nil || !strings.Contains(err.Error(), "TestGoroutineThatIsLeftIsTold") {
		t.Errorf("%v, want the goroutine's stack", err)
	}
	close(block)
	if err := left(); err != nil {
		t.Errorf("when it has ended: %v", err)
	}
}

func TestDescriptorThatIsLeftIsTold(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	left := Watch()
	f, err := os.CreateTemp(t.TempDir(), "left")
	if err != nil {
		t.Fatal(err)
	}
	if err := impatiently(left); err == nil || !strings.Contains(err.Error(), f.Name()) {
		t.Errorf("%v, want the file", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := left(); err != nil {
		t.Errorf("when it is closed: %v", err)
	}
}

type tests func() int

func (t tests) Run() int { return t() }

func TestRunFailsWhereTestsLeaveSomething(t *testing.T) {
	block := make(chan struct{})
	defer close(block)
	leak := func() { go func() { <-block }() }
	var stderr strings.Builder
	for _, tt := range []struct {
		what string
		run  tests
		want int
		told bool
	}{
		{"clean", func() int { return 0 }, 0, false},
		{"leaky", func() int { leak(); return 0 }, 1, true},
		{"failed", func() int { leak(); return 2 }, 2, false},
	} {
		stderr.Reset()
		run := func() int { return Run(tt.run, &stderr) }
		var got int
		if tt.told {
			got = impatiently(run)
		} else {
			got = run()
		}
		if got != tt.want || (stderr.Len() > 0) != tt.told {
			t.Errorf("%s: exit code %d and %q", tt.what, got, stderr.String())
		}
	}
}
