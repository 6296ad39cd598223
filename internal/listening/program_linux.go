package listening

import (
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// What the program reads of struct bpf_sock_ops (linux/bpf.h): where, and the value of op
// for a socket that has begun to listen.
const (
	offsetOp        = 0
	offsetLocalPort = 68 // in host byte order
	opTCPListen     = 11 // BPF_SOCK_OPS_TCP_LISTEN_CB
)

// Where the program has a place on its stack.
const (
	stackPlace = -placeSize
	stackPort  = stackPlace + 8
)

// instructions is the program that the kernel runs at each event of a TCP socket:
//
//	if op != listen { return }
//	place := {network of the socket, its local port}
//	if place was awaited, which it is no longer { write it to told }
//
// So a tenant that listens again and again costs the daemon nothing.
func instructions(awaited, told *ebpf.Map) asm.Instructions {
	const end = "end"
	return asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, offsetOp, asm.Word),
		asm.JNE.Imm(asm.R2, opTCPListen, end),

		asm.LoadMem(asm.R2, asm.R1, offsetLocalPort, asm.Word),
		asm.StoreMem(asm.RFP, stackPort, asm.R2, asm.DWord),
		asm.FnGetNetnsCookie.Call(), // of R1, the event
		asm.StoreMem(asm.RFP, stackPlace, asm.R0, asm.DWord),

		asm.LoadMapPtr(asm.R1, awaited.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackPlace),
		asm.FnMapDeleteElem.Call(),
		asm.JNE.Imm(asm.R0, 0, end), // it was not there

		asm.LoadMapPtr(asm.R1, told.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackPlace),
		asm.Mov.Imm(asm.R3, placeSize),
		asm.Mov.Imm(asm.R4, 0), // wake the reader
		asm.FnRingbufOutput.Call(),

		asm.Mov.Imm(asm.R0, 1).WithSymbol(end),
		asm.Return(),
	}
}
