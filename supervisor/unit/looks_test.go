package unit

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A folder whose file system does not answer delays the first unit that has it for a while, and the others not.
func TestFolderThatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		missing := errors.New("missing")
		answers := make(chan struct{})
		l := &looks{running: map[lookAt]*look{}}
		check := func(dir string) error {
			return l.check(lookAt{dir: dir}, func() error {
				if dir == "hangs" {
					<-answers
				}
				return missing
			})
		}
		began := time.Now()
		for range 3 {
			if err := check("hangs"); err != nil {
				t.Errorf("%v of a folder of which nothing is known", err)
			}
		}
		if took := time.Since(began); took != lookPatience {
			t.Errorf("three units waited %s, want %s", took, lookPatience)
		}
		if err := check("another"); !errors.Is(err, missing) {
			t.Errorf("another folder: %v", err)
		}
		close(answers)
		synctest.Wait()
		if err := check("hangs"); !errors.Is(err, missing) {
			t.Errorf("%v after it has answered", err)
		}
	})
}
