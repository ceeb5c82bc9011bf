package registrywire

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"github.com/core-tools/hsu-master/store/records"
)

// Limits of a publication.
const (
	maxID       = 128
	maxAPIs     = 32
	maxServices = 64 // of an API
	maxProtocol = 32
	maxMetadata = 4 << 10
)

// publication is the body of a publish. The keys of JSON are matched without regard to case.
type publication struct {
	ModuleID  string `json:"moduleID"`
	ProcessID int    `json:"processID"`
	APIs      []api  `json:"apis"`
}

// api is an API in a publication, and in the answer to a discover. The address of a publication is ignored, as clients
// ignore it.
type api struct {
	ServiceIDs []string        `json:"serviceIDs"`
	ServerPort int             `json:"serverPort"`
	Protocol   string          `json:"protocol"`
	Metadata   json.RawMessage `json:"metadata,omitempty"`
}

type discovered struct {
	ModuleID string `json:"moduleID"`
	APIs     []api  `json:"apis"`
}

type succeeded struct {
	Success bool `json:"success"`
}

type failed struct {
	Success bool   `json:"success"`
	Error   string `json:"error"`
	Context string `json:"context"`
}

type healthy struct {
	Status            string `json:"status"`
	RegisteredModules int    `json:"registeredModules"`
	TotalAPIs         int    `json:"totalAPIs"`
	Uptime            string `json:"uptime"`
}

// parsePublication reads the body of a publish and checks it.
func parsePublication(body []byte) (publication, error) {
	var p publication
	if err := json.Unmarshal(body, &p); err != nil {
		return publication{}, fmt.Errorf("the body is no publication: %w", err)
	}
	if err := checkID(p.ModuleID); err != nil {
		return publication{}, fmt.Errorf("moduleID: %w", err)
	}
	if p.ProcessID < 1 || p.ProcessID > math.MaxInt32 {
		return publication{}, fmt.Errorf("processID %d: must be a PID", p.ProcessID)
	}
	if len(p.APIs) > maxAPIs {
		return publication{}, fmt.Errorf("apis: %d, must be %d at most", len(p.APIs), maxAPIs)
	}
	for i, a := range p.APIs {
		if err := a.check(); err != nil {
			return publication{}, fmt.Errorf("apis[%d]: %w", i, err)
		}
	}
	return p, nil
}

func (a api) check() error {
	if a.ServerPort < 0 || a.ServerPort > math.MaxUint16 {
		return fmt.Errorf("serverPort %d: must be 0 to 65535", a.ServerPort)
	}
	if len(a.ServiceIDs) > maxServices {
		return fmt.Errorf("serviceIDs: %d, must be %d at most", len(a.ServiceIDs), maxServices)
	}
	for _, id := range a.ServiceIDs {
		if err := checkID(id); err != nil {
			return fmt.Errorf("serviceIDs: %w", err)
		}
	}
	if a.Protocol != "" {
		if err := checkID(a.Protocol); err != nil || len(a.Protocol) > maxProtocol {
			return fmt.Errorf("protocol %.40q: must be a name", a.Protocol)
		}
	}
	if len(a.Metadata) > maxMetadata {
		return fmt.Errorf("metadata: %d bytes, must be %d at most", len(a.Metadata), maxMetadata)
	}
	return nil
}

// checkID returns an error for an id that is empty, too long, or has other bytes than printable ASCII.
func checkID(id string) error {
	if id == "" || len(id) > maxID {
		return fmt.Errorf("%.40q: must have 1 to %d bytes", id, maxID)
	}
	for _, c := range []byte(id) {
		if c <= ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return errors.New("must be of printable ASCII without blanks, quotes and backslashes")
		}
	}
	return nil
}

func (p publication) announcement() records.Announcement {
	a := records.Announcement{Module: p.ModuleID, PID: p.ProcessID}
	for _, api := range p.APIs {
		announced := records.AnnouncedAPI{
			ServiceIDs: api.ServiceIDs, Port: api.ServerPort, Protocol: api.Protocol,
		}
		if m := string(api.Metadata); m != "null" {
			announced.Metadata = m
		}
		a.APIs = append(a.APIs, announced)
	}
	return a
}

func apiOf(a records.AnnouncedAPI) api {
	found := api{ServiceIDs: a.ServiceIDs, ServerPort: a.Port, Protocol: a.Protocol}
	if json.Valid([]byte(a.Metadata)) {
		found.Metadata = json.RawMessage(a.Metadata)
	}
	if found.ServiceIDs == nil {
		found.ServiceIDs = []string{}
	}
	return found
}

// mergeable reports whether two APIs differ only in their services.
func (a api) mergeable(b api) bool {
	return a.ServerPort == b.ServerPort && a.Protocol == b.Protocol && string(a.Metadata) == string(b.Metadata)
}
