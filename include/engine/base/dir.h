/* SPDX-License-Identifier: Apache-2.0 */
/* Folders that the operator names and that need not be there yet. */
#pragma once
#include <sys/types.h>

/* Makes the folder with mode `last`, and the parents that are missing with 0755. One that is there keeps its
 * mode. 0, or -errno (-ENOTDIR: something on the way is no folder). */
int dir_make(const char *path, mode_t last);
