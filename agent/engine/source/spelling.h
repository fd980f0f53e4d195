/* SPDX-License-Identifier: Apache-2.0 */
/* Words that somebody may have meant. Private to source/. */
#pragma once
#include <stdbool.h>

/* Not the same word, but one slip away: letters in another case, or one too many, missing, wrong, or swapped with its
 * neighbour. */
bool spelling_near(const char *word, const char *meant);
