/* SPDX-License-Identifier: Apache-2.0 */
/* The version that every program of Warren tells. No implementation file. */
#pragma once

#define WARREN_VERSION "0.1.0"
