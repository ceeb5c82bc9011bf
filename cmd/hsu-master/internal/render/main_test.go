package render

import (
	"os"
	"testing"

	"github.com/core-tools/hsu-master/internal/leaks"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m, os.Stderr)) }
