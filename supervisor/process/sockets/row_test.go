package sockets

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const socketLine = "   0: 0100007F:9C41 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 " +
	"91613 1 ffff 100 0 0 10 0"

func TestParseSocketRow(t *testing.T) {
	want := socketRow{port: 40001, listens: true, uid: 1000, inode: 91613}
	if got, ok := parseSocketRow([]byte(socketLine)); !ok || got != want {
		t.Errorf("got %+v, %v, want %+v", got, ok, want)
	}
	want.listens = false
	for _, line := range []string{
		strings.Replace(socketLine, " 0A ", " 01 ", 1),
		strings.Replace(socketLine, "0100007F", "00000000000000000000000001000000", 1),
	} {
		got, ok := parseSocketRow([]byte(line))
		got.listens = false
		if !ok || got != want {
			t.Errorf("%q: %+v, %v, want %+v", line, got, ok, want)
		}
	}
	for _, line := range []string{"", "  sl  local_address rem_address   st", socketLine[:70]} {
		if got, ok := parseSocketRow([]byte(line)); ok {
			t.Errorf("%q: %+v, want none", line, got)
		}
	}
}

func FuzzParseSocketRow(f *testing.F) {
	f.Add([]byte(socketLine))
	f.Fuzz(func(t *testing.T, line []byte) {
		row, ok := parseSocketRow(line)
		if parts := rowShape.FindSubmatch(line); parts != nil {
			want := socketRow{listens: string(parts[2]) == "0A"}
			n, err := fmt.Sscanf(fmt.Sprintf("%s %s %s", parts[1], parts[3], parts[4]), "%x %d %d",
				&want.port, &want.uid, &want.inode)
			if ok != (err == nil && n == 3) || ok && row != want {
				t.Errorf("%+v, %v, want %+v, %v", row, ok, want, err)
			}
		}
		if !ok {
			return
		}
		if row.port < 0 || row.port > 65535 {
			t.Errorf("%+v", row)
		}
		// Format it as the kernel would have printed it.
		fields := strings.Fields(socketLine)
		fields[1] = "0100007F:" + strings.ToUpper(strconv.FormatInt(int64(row.port), 16))
		fields[3] = "01"
		if row.listens {
			fields[3] = "0A"
		}
		fields[7], fields[9] = strconv.FormatUint(uint64(row.uid), 10), strconv.FormatUint(row.inode, 10)
		if again, ok := parseSocketRow([]byte(strings.Join(fields, " "))); !ok || again != row {
			t.Errorf("printed and read again: %+v, %v, want %+v", again, ok, row)
		}
	})
}

// rowShape matches a row as the kernel prints it; its groups are the port, the state, the UID and the inode.
var rowShape = regexp.MustCompile(`^ *\d+: [0-9A-F]+:([0-9A-F]{4}) [0-9A-F:]+ ([0-9A-F]{2}) ` +
	`[0-9A-F:]+ [0-9A-F:]+ [0-9A-F]+ +(\d{1,9}) +\d+ (\d{1,18})( |\n|$)`)
