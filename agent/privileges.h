/* SPDX-License-Identifier: Apache-2.0 */
/* What the agent's process may do: only what its work needs. */
#pragma once

/* Keeps the capabilities that the agent uses, drops the others for good; no program it could start gains any,
 * and no other process of the same user reads its memory, where private keys are. Before the first thread
 * starts. 0, or -EPERM with *ret_missing (static) the capabilities it cannot do without, or another -errno.
 */
int privileges_reduce(const char **ret_missing);
