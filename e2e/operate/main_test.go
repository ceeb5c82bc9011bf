//go:build e2e && linux

package operate

import (
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
