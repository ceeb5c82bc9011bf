package frames

import (
	"encoding/binary"

	"golang.org/x/net/http2"
)

const (
	TableSize = 4096 // of HPACK, in both directions
	// UnboundedStreams bounds the concurrent streams to a backend that announces no limit.
	UnboundedStreams = 1 << 20
)

// Settings are the settings of a peer that the relay uses. It has no use for the maximum frame size, since it sends
// no frames that are larger than the minimum of that, nor for the maximum header list size, since the peer refuses
// larger lists itself.
type Settings struct {
	Window  int    // initial size of a stream's window
	Streams uint32 // concurrent streams; of a backend
	Table   int    // size of the HPACK table, at most TableSize
	Least   int    // the smallest table size in the last SETTINGS frame
	Known   bool   // the peer has sent SETTINGS
}

// FirstSettings returns the settings that apply before the peer has sent any.
func FirstSettings() Settings {
	return Settings{Window: FirstWindow, Table: TableSize, Least: TableSize}
}

// Read returns the settings as the payload of a SETTINGS frame changes them.
func (s Settings) Read(payload []byte) (Settings, error) {
	s.Least = s.Table
	for p := payload; len(p) > 0; p = p[6:] {
		one := http2.Setting{ID: http2.SettingID(binary.BigEndian.Uint16(p)), Val: binary.BigEndian.Uint32(p[2:])}
		if one.Valid() != nil {
			code := http2.ErrCodeProtocol
			if one.ID == http2.SettingInitialWindowSize {
				code = http2.ErrCodeFlowControl
			}
			return s, ConnError{code, "SETTINGS with a value that is not allowed"}
		}
		switch one.ID {
		case http2.SettingHeaderTableSize:
			s.Table = int(min(one.Val, TableSize))
			s.Least = min(s.Least, s.Table)
		case http2.SettingMaxConcurrentStreams:
			s.Streams = min(one.Val, UnboundedStreams)
		case http2.SettingInitialWindowSize:
			s.Window = int(one.Val)
		default:
		}
	}
	return s, nil
}

// CheckSettings checks a SETTINGS frame, and reports whether it is an acknowledgment.
func CheckSettings(f Frame) (ack bool, err error) {
	switch {
	case f.ID != 0:
		return false, ConnError{http2.ErrCodeProtocol, "SETTINGS on a stream"}
	case f.Flags&http2.FlagSettingsAck != 0:
		if len(f.Payload) != 0 {
			return false, ConnError{http2.ErrCodeFrameSize, "a SETTINGS acknowledgment with a payload"}
		}
		return true, nil
	case len(f.Payload)%6 != 0:
		return false, ConnError{http2.ErrCodeFrameSize, "SETTINGS of a wrong size"}
	}
	return false, nil
}

// ChangesWindow reports whether the payload of a SETTINGS frame sets the initial size of a stream's window.
func ChangesWindow(payload []byte) bool {
	for p := payload; len(p) >= 6; p = p[6:] {
		if http2.SettingID(binary.BigEndian.Uint16(p)) == http2.SettingInitialWindowSize {
			return true
		}
	}
	return false
}
