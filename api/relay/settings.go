package relay

import (
	"encoding/binary"

	"golang.org/x/net/http2"
)

const (
	tableSize = 4096 // of HPACK, in both directions
	// unboundedStreams bounds the concurrent streams to a backend that announces no limit.
	unboundedStreams = 1 << 20
)

// settings are the settings of a peer that the relay uses. It has no use for the maximum frame size, since it sends
// no frames that are larger than the minimum of that, nor for the maximum header list size, since the peer refuses
// larger lists itself.
type settings struct {
	window  int    // initial size of a stream's window
	streams uint32 // concurrent streams; of a backend
	table   int    // size of the HPACK table, at most tableSize
	least   int    // the smallest table size in the last SETTINGS frame
	known   bool   // the peer has sent SETTINGS
}

// firstSettings returns the settings that apply before the peer has sent any.
func firstSettings() settings {
	return settings{window: firstWindow, table: tableSize, least: tableSize}
}

// read returns the settings as the payload of a SETTINGS frame changes them.
func (s settings) read(payload []byte) (settings, error) {
	s.least = s.table
	for p := payload; len(p) > 0; p = p[6:] {
		one := http2.Setting{ID: http2.SettingID(binary.BigEndian.Uint16(p)), Val: binary.BigEndian.Uint32(p[2:])}
		if one.Valid() != nil {
			code := http2.ErrCodeProtocol
			if one.ID == http2.SettingInitialWindowSize {
				code = http2.ErrCodeFlowControl
			}
			return s, connError{code, "SETTINGS with a value that is not allowed"}
		}
		switch one.ID {
		case http2.SettingHeaderTableSize:
			s.table = int(min(one.Val, tableSize))
			s.least = min(s.least, s.table)
		case http2.SettingMaxConcurrentStreams:
			s.streams = min(one.Val, unboundedStreams)
		case http2.SettingInitialWindowSize:
			s.window = int(one.Val)
		default:
		}
	}
	return s, nil
}

// checkSettings checks a SETTINGS frame, and reports whether it is an acknowledgment.
func checkSettings(f frame) (ack bool, err error) {
	switch {
	case f.id != 0:
		return false, connError{http2.ErrCodeProtocol, "SETTINGS on a stream"}
	case f.flags&http2.FlagSettingsAck != 0:
		if len(f.payload) != 0 {
			return false, connError{http2.ErrCodeFrameSize, "SETTINGS that acknowledge and say something"}
		}
		return true, nil
	case len(f.payload)%6 != 0:
		return false, connError{http2.ErrCodeFrameSize, "SETTINGS of a wrong size"}
	}
	return false, nil
}

// changeWindow reports whether the payload of a SETTINGS frame sets the initial size of a stream's window.
func changeWindow(payload []byte) bool {
	for p := payload; len(p) >= 6; p = p[6:] {
		if http2.SettingID(binary.BigEndian.Uint16(p)) == http2.SettingInitialWindowSize {
			return true
		}
	}
	return false
}
