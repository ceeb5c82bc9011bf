// Package cgroup makes and removes the cgroups of workers, limits their resources, and reads what the kernel has
// counted for them (cgroups of version 2, cgroups(7)). A cgroup is named by its folder. Linux.
//
// Hazards:
//
//   - A cgroup can limit the cgroups below it only if its parent has the controller in cgroup.subtree_control, and a
//     cgroup that has one there can have no processes of its own ("no internal processes"). So processes in the
//     delegated cgroup are moved into the one named [Master] below it, before the first controller is enabled.
//   - systemd starts a service in the service's own cgroup, which fails while controllers are enabled there. If that
//     were the cgroup that is delegated to the master, no next master could be started while workers live. See
//     errService.
//   - A controller that a version 1 hierarchy has is not available here.
//   - Writing memory.max below the present use makes the kernel reclaim memory before write(2) returns, and then kill
//     processes of the cgroup.
//   - memory.events counts all processes that the kernel has killed for lack of memory, also of the whole machine.
package cgroup
