// Packs: the objects that hold blocks and nodes. Encoding and decoding only, no I/O;
// docs/formats/repository.md, "Packs".
#ifndef RP_REPO_PACK_H
#define RP_REPO_PACK_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "repo/crypto.h"

#define RP_PACK_ID 16
#define RP_PACK_HEADER 32
#define RP_PACK_FOOTER 32
#define RP_PACK_TARGET (32u << 20)     // a pack is closed once its frames reach this size
#define RP_PACK_MAX_SIZE (64u << 20)   // larger objects are not packs
#define RP_PACK_MAX_BLOCKS 65535u      // blocks and nodes; frames as well
#define RP_PACK_NAME 48
#define RP_FRAME_MAX_RAW (2u << 20)
#define RP_FRAME_MAX_STORED (RP_FRAME_MAX_RAW + RP_TAG_BYTES)
#define RP_FRAME_MAX_UNITS 256u
#define RP_PACK_INDEX_COUNTER UINT32_MAX // nonce of the index; frames count from 0

#define RP_NODE_IDS 256u
#define RP_NODE_BYTES (RP_NODE_IDS * RP_ID_BYTES)
#define RP_MAX_LEVEL 5 // of a node: 256^5 blocks are more than any disk has

enum rp_compression { RP_COMPRESSION_NONE = 0, RP_COMPRESSION_ZSTD = 1 };

// A frame: up to 2 MiB of blocks, or of nodes of one level, compressed and sealed together.
struct rp_pack_frame {
    uint32_t offset;      // in the pack
    uint32_t stored;      // bytes in the pack, tag included
    uint8_t level;        // 0: blocks; n: nodes of level n
    uint8_t compression;
    uint16_t count;       // blocks or nodes
    uint32_t first;       // number of its first id in the pack
};
struct rp_pack_index {
    struct rp_pack_frame *frames;
    uint32_t frame_count;
    uint8_t *ids; // id_count times RP_ID_BYTES
    uint32_t id_count;
};
void rp_pack_index_clear(struct rp_pack_index *index);

struct rp_pack_footer {
    uint64_t index_offset;
    uint32_t index_size; // sealed
    uint32_t frame_count, id_count;
};

// Bytes of one block or node of this level.
static inline uint32_t rp_unit_bytes(unsigned level) { return level ? RP_NODE_BYTES : 65536; }

// "packs/ab/abcd…". Returns `out`.
const char *rp_pack_name(const uint8_t id[RP_PACK_ID], char out[RP_PACK_NAME]);
// False when the object's name is not that of a pack.
bool rp_pack_parse_name(const char *name, uint8_t id[RP_PACK_ID]);

void rp_pack_header(const uint8_t id[RP_PACK_ID], bool encrypted, uint8_t out[RP_PACK_HEADER]);
int rp_pack_check_header(const uint8_t header[RP_PACK_HEADER], const uint8_t id[RP_PACK_ID], bool encrypted,
                         struct rp_error *err);
// Appends the sealed index and the footer for frames that end at `index_offset`.
void rp_pack_finish(struct rp_cipher *cipher, const uint8_t key[RP_KEY_BYTES], const uint8_t header[RP_PACK_HEADER],
                    const struct rp_pack_index *index, uint64_t index_offset, struct rp_buf *out);
// `size` is that of the object: frames, index and footer must fill it exactly.
int rp_pack_parse_footer(const uint8_t footer[RP_PACK_FOOTER], uint64_t size, struct rp_pack_footer *out,
                         struct rp_error *err);
int rp_pack_open_index(struct rp_cipher *cipher, const uint8_t key[RP_KEY_BYTES], const uint8_t header[RP_PACK_HEADER],
                       const uint8_t footer[RP_PACK_FOOTER], const struct rp_pack_footer *parsed, const void *sealed,
                       struct rp_pack_index *out, struct rp_error *err);
// The plain index, after authentication.
int rp_pack_decode_index(const struct rp_pack_footer *footer, const void *plain, size_t size, struct rp_pack_index *out,
                         struct rp_error *err);

#define RP_FRAME_AAD 24
// What a frame is authenticated with: where it stands and how it is to be read.
void rp_pack_frame_aad(const uint8_t pack[RP_PACK_ID], uint32_t number, unsigned level, unsigned compression,
                       unsigned count, uint8_t out[RP_FRAME_AAD]);

#endif
