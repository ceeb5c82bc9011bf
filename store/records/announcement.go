package records

import (
	"math"

	pb "github.com/core-tools/hsu-master/store/storepb"
)

func encodeAnnouncements(b *bounds, announcements []Announcement) []*pb.Announcement {
	var messages []*pb.Announcement
	for _, a := range announcements {
		m := &pb.Announcement{
			Module: text(a.Module), Pid: b.int32("pid of a module", a.PID, 1, math.MaxInt32),
			PidfdInode: a.Inode, StartTicks: a.StartTicks,
		}
		for _, api := range a.APIs {
			ids := make([]string, len(api.ServiceIDs))
			for i, id := range api.ServiceIDs {
				ids[i] = text(id)
			}
			m.Apis = append(m.Apis, &pb.AnnouncedApi{
				ServiceIds: ids, Port: b.int32("port of an API", api.Port, 0, maxPort),
				Protocol: text(api.Protocol), Metadata: text(api.Metadata),
			})
		}
		messages = append(messages, m)
	}
	return messages
}

func decodeAnnouncements(b *bounds, messages []*pb.Announcement) []Announcement {
	var announcements []Announcement
	for _, m := range messages {
		b.int32("pid of a module", int(m.GetPid()), 1, math.MaxInt32)
		a := Announcement{
			Module: m.GetModule(), PID: int(m.GetPid()), Inode: m.GetPidfdInode(), StartTicks: m.GetStartTicks(),
		}
		for _, api := range m.GetApis() {
			b.int32("port of an API", int(api.GetPort()), 0, maxPort)
			a.APIs = append(a.APIs, AnnouncedAPI{
				ServiceIDs: api.GetServiceIds(), Port: int(api.GetPort()),
				Protocol: api.GetProtocol(), Metadata: api.GetMetadata(),
			})
		}
		announcements = append(announcements, a)
	}
	return announcements
}
