// Package tenement is the vocabulary of the process hypervisor: a [Service] is
// a recipe, an [Instance] is one Service run for one tenant, a process is one
// life of an Instance, and a [Lease] is the right to talk to a live process.
//
// It imports only the standard library, and every other package speaks in its
// terms. See ARCHITECTURE.md for who may import whom.
package tenement
