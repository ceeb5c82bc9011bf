package headers

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"
)

// reference decodes a block with x/net's decoder.
func reference(d *hpack.Decoder, block []byte) ([]hpack.HeaderField, error) {
	var fields []hpack.HeaderField
	d.SetEmitFunc(func(f hpack.HeaderField) { fields = append(fields, f) })
	if _, err := d.Write(block); err != nil {
		return nil, err
	}
	return fields, d.Close()
}

func same(t testing.TB, l *List, want []hpack.HeaderField) {
	t.Helper()
	i := 0
	for f := range l.All {
		if i >= len(want) || f.Name() != want[i].Name || f.Value() != want[i].Value || f.never != want[i].Sensitive {
			t.Fatalf("field %d is %q: %q (never %v), want %v",
				i, f.Name(), f.Value(), f.never, want[min(i, len(want)-1)])
		}
		i++
	}
	if i != len(want) {
		t.Fatalf("%d fields, want %d", i, len(want))
	}
}

// twoSizes reports whether a block begins with two sizes of the table. RFC 7541, section 4.2, allows that; x/net
// refuses it unless the table is empty.
func twoSizes(block []byte) bool {
	isSize := func(b []byte) bool { return len(b) > 0 && b[0]&0xe0 == 0x20 }
	if !isSize(block) {
		return false
	}
	rest := block[1:]
	if block[0]&0x1f == 0x1f {
		for len(rest) > 0 && rest[0]&0x80 != 0 {
			rest = rest[1:]
		}
		rest = rest[min(1, len(rest)):]
	}
	return isSize(rest)
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte{
		0x82, 0x86, 0x84, 0x41, 0x0f,
		'w', 'w', 'w', '.', 'e', 'x', 'a', 'm', 'p', 'l', 'e', '.', 'c', 'o', 'm',
	}, []byte{0xbe, 0x40, 1, 'a', 1, 'b'})
	f.Add([]byte{
		0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
	}, []byte{0x20, 0xbe})
	f.Add([]byte{0x3f, 0xe1, 0x1f, 0x10, 0, 0}, []byte{0x40, 0, 0, 0xbe})
	f.Fuzz(func(t *testing.T, first, second []byte) {
		ours, theirs := NewDecoder(4096), hpack.NewDecoder(4096, nil)
		for _, block := range [][]byte{first, second, first} {
			want, wantErr := reference(theirs, block)
			var l List
			err := ours.Decode(block, &l, 1<<30)
			if errors.Is(err, errLate) || errors.Is(err, errLong) {
				return
			}
			if wantErr == nil && err != nil {
				t.Fatalf("refused what x/net takes: %x", block)
			}
			if wantErr != nil {
				if err == nil && !twoSizes(block) {
					t.Fatalf("taken what x/net refuses with %v: %x", wantErr, block)
				}
				return
			}
			same(t, &l, want)
		}
	})
}

func TestEncoderAgainstReference(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	names := []string{
		":method", ":status", ":path", ":scheme", "content-type", "grpc-timeout", "x-a", "x-b",
		"authorization", "te", "",
	}
	values := []string{
		"POST", "200", "http", "https", "trailers", "", "a", strings.Repeat("v", 600), strings.Repeat("w", 300),
	}
	for _, size := range []int{4096, 256, 0} {
		e, d := NewEncoder(4096), hpack.NewDecoder(4096, nil)
		e.SetMax(size)
		for round := range 2000 {
			if round%97 == 0 {
				e.SetMax(random.IntN(4097))
				e.SetMax(size)
			}
			var l List
			for range random.IntN(12) {
				value := values[random.IntN(len(values))]
				if random.IntN(3) == 0 {
					value = string(rune('a' + random.IntN(26)))
				}
				name := names[random.IntN(len(names))]
				l.start(len(name), len(value), random.IntN(10) == 0)
				l.b = append(append(l.b, name...), value...)
			}
			block := e.Start(nil)
			for f := range l.All {
				block = e.Field(block, f)
			}
			fields, err := reference(d, block)
			if err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			same(t, &l, fields)
		}
	}
}

func TestTruncation(t *testing.T) {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	_ = e.WriteField(hpack.HeaderField{Name: "a", Value: strings.Repeat("x", 100)})
	_ = e.WriteField(hpack.HeaderField{Name: "b", Value: "y"})
	d := NewDecoder(4096)
	var l List
	if err := d.Decode(b.Bytes(), &l, 100); err != nil || !l.Truncated {
		t.Errorf("truncated = %v, %v", l.Truncated, err)
	}
	b.Reset()
	_ = e.WriteField(hpack.HeaderField{Name: "b", Value: "y"})
	l.Reset()
	if err := d.Decode(b.Bytes(), &l, 100); err != nil || l.Truncated {
		t.Fatal("the table was not kept")
	}
	same(t, &l, []hpack.HeaderField{{Name: "b", Value: "y"}})
}

// Values that differ in each call must not evict those that are the same in all calls.
func TestVaryingValuesStayOut(t *testing.T) {
	for method := range 200 { // fields with other hashes
		e := NewEncoder(4096)
		size := 0
		for i := range 100 {
			var l List
			l.Add(":path", fmt.Sprintf("/pkg.Service/Method%03d", method))
			l.Add("user-agent", "grpc-go/1.2.3")
			l.Add("traceparent",
				strings.Repeat(string(rune('a'+i%26)), 10)+string(rune('a'+i/26%26))+string(rune('a'+i/676)))
			var block []byte
			for f := range l.All {
				block = e.Field(block, f)
			}
			size = len(block)
		}
		if want := 1 + 1 + 2 + len("traceparent") + 13; size > want+1 {
			t.Errorf("method %d: %d bytes a call, want about %d", method, size, want)
		}
	}
}

func TestNothingIsAllocated(t *testing.T) {
	e, d := NewEncoder(4096), NewDecoder(4096)
	var in, out List
	in.Add(":path", "/pkg.Service/Method")
	in.Add(":status", "200")
	in.Add("grpc-timeout", "123456u")
	var block []byte
	if n := testing.AllocsPerRun(1000, func() {
		block = e.Start(block[:0])
		for f := range in.All {
			block = e.Field(block, f)
		}
		out.Reset()
		if err := d.Decode(block, &out, 4096); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations a block", n)
	}
}

// Lengths and indexes that are larger than any 32-bit int.
func TestIntegersThatAreTooLarge(t *testing.T) {
	for _, block := range [][]byte{
		{0xff, 0x80, 0x80, 0x80, 0x80, 0x78},
		{0x00, 0x7f, 0xff, 0xff, 0xff, 0xff, 0x7f},
		{0x3f, 0xff, 0xff, 0xff, 0xff, 0x7f},
	} {
		var l List
		if err := NewDecoder(4096).Decode(block, &l, 1<<14); err == nil {
			t.Errorf("%x was decoded", block)
		}
	}
}
