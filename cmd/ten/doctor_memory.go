package main

import (
	"context"
	"fmt"

	"tenement/internal/memory"
)

// checkMemory says what bounds the memory of all that is awake.
func checkMemory(_ context.Context, e *examination) []finding {
	available, err := memory.Available("", "")
	if err != nil {
		return found(verdictWarn, err.Error(), "")
	}
	detail := fmt.Sprintf("%d MB are available", available>>20)
	switch {
	case e.config == nil:
		return found(verdictOK, detail, "")
	case e.config.MemoryReserve > available:
		return found(verdictWarn, fmt.Sprintf("%s, less than memory_reserve_mb = %d: idle instances are put to sleep, and what cannot have their place is refused", detail, e.config.MemoryReserve>>20),
			"give the machine more memory, or lower memory_reserve_mb")
	case e.config.MemoryReserve > 0:
		return found(verdictOK, fmt.Sprintf("%s, and %d MB are kept free", detail, e.config.MemoryReserve>>20), "")
	}
	return found(verdictOK, detail+", and instances may wake until nothing is left",
		"with memory_reserve_mb = 256 in [settings], say, idle ones are put to sleep before that")
}
