package store

import (
	"flag"
	"os"
	"testing"

	"github.com/core-tools/hsu-master/internal/leaks"
)

var update = flag.Bool("update", false, "write the golden files anew")

// childEnv makes the test binary run one of the children instead of the tests.
const childEnv = "HSU_STORE_TEST_CHILD"

func TestMain(m *testing.M) {
	if name := os.Getenv(childEnv); name != "" {
		children[name]()
		os.Exit(0)
	}
	code := leaks.Run(m, os.Stderr)
	for _, clean := range atEnd {
		clean()
	}
	os.Exit(code)
}

// atEnd are called when all tests have ended.
var atEnd []func()
