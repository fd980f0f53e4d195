/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What every program includes, in the order that the pieces need. */
#pragma once
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include "abi/marks.h"
#include "abi/reasons.h"
#include "lib/maps.h"

#define BPF_SK_STORAGE_GET_F_CREATE 1
