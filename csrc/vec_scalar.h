/* vec_scalar.h - the vector vocabulary in plain C: what each word means.
 *
 * A vf holds 16 floats, a vd 16 doubles, a vi 16 int32, a vm 16 truth values, a vb 16 lanes of 4 bytes.  Every level gives the same
 * bits for every word, a NaN's sign and payload aside: one rounding per operation, one order for every fold.  See docs/numerics.md.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef struct { float v[16]; } vf;
typedef struct { double v[16]; } vd;
typedef struct { int32_t v[16]; } vi;
typedef struct { uint8_t v[16]; } vm;
typedef struct { int8_t v[64]; } vb;
typedef vi vs;                      /* sums of a block, as wide as the level needs */

enum { FD_ROW_TILE = 4 };           /* rows of one register tile */

#define FD_EACH for (int i = 0; i < 16; i++)

/* A word of hundreds of instructions, at hundreds of places: one function, or the compiler takes minutes.  A fused multiply-add is one
 * of them where the target has no instruction for it, and each lane is a call. */
#define FD_LONG static __attribute__((noinline))
#if defined(__FP_FAST_FMAF)
#define FD_FUSED static inline
#else
#define FD_FUSED FD_LONG
#endif

/* ---- floats ---- */
static inline vf vf_set1(float a) { vf r; FD_EACH r.v[i] = a; return r; }
static inline vf vf_zero(void) { return vf_set1(0.0f); }
static inline vf vf_load(const float *p) { vf r; memcpy(r.v, p, sizeof r.v); return r; }
static inline void vf_store(float *p, vf a) { memcpy(p, a.v, sizeof a.v); }
static inline vf vf_add(vf a, vf b) { vf r; FD_EACH r.v[i] = a.v[i] + b.v[i]; return r; }
static inline vf vf_sub(vf a, vf b) { vf r; FD_EACH r.v[i] = a.v[i] - b.v[i]; return r; }
static inline vf vf_mul(vf a, vf b) { vf r; FD_EACH r.v[i] = a.v[i] * b.v[i]; return r; }
static inline vf vf_div(vf a, vf b) { vf r; FD_EACH r.v[i] = a.v[i] / b.v[i]; return r; }
FD_FUSED vf vf_fma(vf a, vf b, vf c) { vf r; FD_EACH r.v[i] = fmaf(a.v[i], b.v[i], c.v[i]); return r; }   /* a b + c */
FD_FUSED vf vf_fnma(vf a, vf b, vf c) { vf r; FD_EACH r.v[i] = fmaf(-a.v[i], b.v[i], c.v[i]); return r; } /* c - a b */
static inline vf vf_max(vf a, vf b) { vf r; FD_EACH r.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i]; return r; }    /* NaN gives b */
static inline vf vf_min(vf a, vf b) { vf r; FD_EACH r.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i]; return r; }
static inline vf vf_sqrt(vf a) { vf r; FD_EACH r.v[i] = sqrtf(a.v[i]); return r; }

/* The one order in which 16 lanes fold into one: halves, then neighbours, then neighbours' neighbours, then halves. */
static inline float vf_sum(vf a)
{
    float b[8], c[4];
    for (int i = 0; i < 8; i++) b[i] = a.v[i] + a.v[i + 8];
    for (int i = 0; i < 4; i++) c[i] = b[2 * i] + b[2 * i + 1];
    return (c[0] + c[1]) + (c[2] + c[3]);
}

/* ---- doubles ---- */
static inline vd vd_zero(void) { vd r; FD_EACH r.v[i] = 0.0; return r; }
static inline vd vd_add_floats(vd a, vf b) { vd r; FD_EACH r.v[i] = a.v[i] + (double)b.v[i]; return r; }
static inline double vd_sum(vd a)                                       /* in the order of vf_sum */
{
    double b[8], c[4];
    for (int i = 0; i < 8; i++) b[i] = a.v[i] + a.v[i + 8];
    for (int i = 0; i < 4; i++) c[i] = b[2 * i] + b[2 * i + 1];
    return (c[0] + c[1]) + (c[2] + c[3]);
}

static inline vd vd_set1(double a) { vd r; FD_EACH r.v[i] = a; return r; }
static inline vd vd_load(const double *p) { vd r; memcpy(r.v, p, sizeof r.v); return r; }
static inline void vd_store(double *p, vd a) { memcpy(p, a.v, sizeof a.v); }
static inline vd vd_from_floats(vf a) { vd r; FD_EACH r.v[i] = (double)a.v[i]; return r; }
static inline vf vf_from_doubles(vd a) { vf r; FD_EACH r.v[i] = (float)a.v[i]; return r; }
static inline vd vd_add(vd a, vd b) { vd r; FD_EACH r.v[i] = a.v[i] + b.v[i]; return r; }
static inline vd vd_sub(vd a, vd b) { vd r; FD_EACH r.v[i] = a.v[i] - b.v[i]; return r; }
static inline vd vd_mul(vd a, vd b) { vd r; FD_EACH r.v[i] = a.v[i] * b.v[i]; return r; }
static inline vd vd_div(vd a, vd b) { vd r; FD_EACH r.v[i] = a.v[i] / b.v[i]; return r; }
FD_FUSED vd vd_fma(vd a, vd b, vd c) { vd r; FD_EACH r.v[i] = fma(a.v[i], b.v[i], c.v[i]); return r; }   /* a b + c */
FD_FUSED vd vd_fnma(vd a, vd b, vd c) { vd r; FD_EACH r.v[i] = fma(-a.v[i], b.v[i], c.v[i]); return r; } /* c - a b */
static inline vd vd_max(vd a, vd b) { vd r; FD_EACH r.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i]; return r; }  /* NaN gives b */
static inline vd vd_min(vd a, vd b) { vd r; FD_EACH r.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i]; return r; }
static inline vd vd_abs(vd a) { vd r; FD_EACH r.v[i] = fabs(a.v[i]); return r; }
static inline vd vd_sqrt(vd a) { vd r; FD_EACH r.v[i] = sqrt(a.v[i]); return r; }
static inline vd vd_where_less(vd a, vd b, vd x, vd y) { vd r; FD_EACH r.v[i] = a.v[i] < b.v[i] ? x.v[i] : y.v[i]; return r; }
/* p 2^n of t = n + 1.5 * 2^52; p and the result are normal numbers. */
static inline vd vd_scale(vd p, vd t)
{
    vd r;
    FD_EACH { uint64_t a, n; memcpy(&a, &p.v[i], 8); memcpy(&n, &t.v[i], 8); a += n << 52; memcpy(&r.v[i], &a, 8); }
    return r;
}
/* A positive normal number is 2^e m with m in [1 / sqrt 2, sqrt 2). */
#define FD_HALF_ROOT 0x3fe6a09e667f3bcdULL                               /* bits of 1 / sqrt 2 */
static inline vd vd_split(vd x, vd *e)
{
    vd m;
    FD_EACH {
        uint64_t bits;
        memcpy(&bits, &x.v[i], 8);
        bits += 0x3ff0000000000000ULL - FD_HALF_ROOT;
        e->v[i] = (double)(bits >> 52) - 1023.0;
        bits = (bits & 0xfffffffffffffULL) + FD_HALF_ROOT;
        memcpy(&m.v[i], &bits, 8);
    }
    return m;
}

/* ---- 16-bit floats ---- */
static inline float fd_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, magnitude = h & 0x7fffu, bits;
    float f;
    if (magnitude >= 0x7c00u) bits = 0x7f800000u | (magnitude & 0x3ffu) << 13 | (magnitude > 0x7c00u ? 0x400000u : 0);
    else if (magnitude >= 0x400u) bits = (magnitude << 13) + (112u << 23);
    else { f = (float)magnitude * 0x1p-24f; memcpy(&bits, &f, 4); }     /* subnormal: exact */
    bits |= sign;
    memcpy(&f, &bits, 4);
    return f;
}
static inline uint16_t fd_f32_to_f16(float f)                           /* to nearest, ties to even */
{
    uint32_t bits;
    memcpy(&bits, &f, 4);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000u);
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u) return sign | 0x7e00u | (uint16_t)(bits >> 13 & 0x3ffu);
    if (bits >= 0x477ff000u) return sign | 0x7c00u;                     /* 65520 and above round to infinity */
    if (bits < 0x38800000u) {                                           /* below 2^-14: units of 2^-24 */
        float magnitude;
        memcpy(&magnitude, &bits, 4);
        return sign | (uint16_t)lrintf(magnitude * 0x1p24f);
    }
    return sign | (uint16_t)((bits + 0xfffu + (bits >> 13 & 1u) - (112u << 23)) >> 13);
}
FD_LONG vf vf_load_f16(const uint16_t *p) { vf r; FD_EACH r.v[i] = fd_f16_to_f32(p[i]); return r; }
FD_LONG void vf_store_f16(uint16_t *p, vf a) { FD_EACH p[i] = fd_f32_to_f16(a.v[i]); }
static inline vf vf_load_bf16(const uint16_t *p)
{
    vf r;
    FD_EACH { uint32_t bits = (uint32_t)p[i] << 16; memcpy(&r.v[i], &bits, 4); }
    return r;
}

/* ---- integers ---- */
static inline vi vi_set1(int32_t a) { vi r; FD_EACH r.v[i] = a; return r; }
static inline vi vi_load(const int32_t *p) { vi r; memcpy(r.v, p, sizeof r.v); return r; }
static inline void vi_store(int32_t *p, vi a) { memcpy(p, a.v, sizeof a.v); }
static inline vi vi_add(vi a, vi b) { vi r; FD_EACH r.v[i] = (int32_t)((uint32_t)a.v[i] + (uint32_t)b.v[i]); return r; }
static inline vi vi_sub(vi a, vi b) { vi r; FD_EACH r.v[i] = (int32_t)((uint32_t)a.v[i] - (uint32_t)b.v[i]); return r; }
static inline vi vi_and(vi a, vi b) { vi r; FD_EACH r.v[i] = a.v[i] & b.v[i]; return r; }
static inline vi vi_or(vi a, vi b) { vi r; FD_EACH r.v[i] = a.v[i] | b.v[i]; return r; }
static inline vi vi_xor(vi a, vi b) { vi r; FD_EACH r.v[i] = a.v[i] ^ b.v[i]; return r; }
static inline int32_t vi_sum(vi a) { int32_t r = 0; FD_EACH r += a.v[i]; return r; }
static inline int32_t vi_largest(vi a) { int32_t r = a.v[0]; FD_EACH r = a.v[i] > r ? a.v[i] : r; return r; }
static inline vi vi_max(vi a, vi b) { vi r; FD_EACH r.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i]; return r; }
static inline vi vi_max_unsigned(vi a, vi b)
{
    vi r;
    FD_EACH r.v[i] = (uint32_t)a.v[i] > (uint32_t)b.v[i] ? a.v[i] : b.v[i];
    return r;
}
static inline vi vi_shl(vi a, int n) { vi r; FD_EACH r.v[i] = (int32_t)((uint32_t)a.v[i] << n); return r; }
static inline vi vi_shr(vi a, int n) { vi r; FD_EACH r.v[i] = (int32_t)((uint32_t)a.v[i] >> n); return r; }   /* logical */
static inline vi vi_mul_low(vi a, vi b) { vi r; FD_EACH r.v[i] = (int32_t)((uint32_t)a.v[i] * (uint32_t)b.v[i]); return r; }
static inline vi vi_mul_high(vi a, vi b)                                                                     /* unsigned */
{
    vi r;
    FD_EACH r.v[i] = (int32_t)((uint64_t)(uint32_t)a.v[i] * (uint32_t)b.v[i] >> 32);
    return r;
}
static inline vi vi_iota(void) { vi r; FD_EACH r.v[i] = i; return r; }

/* ---- between floats and integers ---- */
static inline vf vf_from_int(vi a) { vf r; FD_EACH r.v[i] = (float)a.v[i]; return r; }
static inline vi vi_round(vf a)      /* to nearest, ties to even; what does not fit (NaN too) gives INT32_MIN */
{
    vi r;
    FD_EACH r.v[i] = a.v[i] >= -0x1p31f && a.v[i] < 0x1p31f ? (int32_t)lrintf(a.v[i]) : INT32_MIN;
    return r;
}
static inline vi vi_of_bits(vf a) { vi r; memcpy(&r, &a, sizeof r); return r; }
static inline vf vf_of_bits(vi a) { vf r; memcpy(&r, &a, sizeof r); return r; }

/* ---- truth ---- */
static inline vm vf_less(vf a, vf b) { vm r; FD_EACH r.v[i] = a.v[i] < b.v[i]; return r; }
static inline vm vf_equal(vf a, vf b) { vm r; FD_EACH r.v[i] = a.v[i] == b.v[i]; return r; }
static inline vm vi_less(vi a, vi b) { vm r; FD_EACH r.v[i] = a.v[i] < b.v[i]; return r; }                     /* signed */
static inline vm vi_equal(vi a, vi b) { vm r; FD_EACH r.v[i] = a.v[i] == b.v[i]; return r; }
static inline uint32_t vm_bits(vm m) { uint32_t r = 0; FD_EACH r |= (uint32_t)m.v[i] << i; return r; }
static inline vf vf_select(vm m, vf a, vf b) { vf r; FD_EACH r.v[i] = m.v[i] ? a.v[i] : b.v[i]; return r; }
static inline vi vi_select(vm m, vi a, vi b) { vi r; FD_EACH r.v[i] = m.v[i] ? a.v[i] : b.v[i]; return r; }

/* ---- block sums: exact integers ----
 * lane i gains sum over j < 4 of codes[4 i + j] x[j].  Codes of q4 lie in 0..15, of q8 in -128..127, x in -127..127.
 * x4 is four activations as they lie in memory.  A level also says in words what it computes the products with. */
#define FD_PRODUCT_FLOAT "fma in plain C"
#define FD_PRODUCT_Q8 "int8 products in plain C"
#define FD_PRODUCT_Q4 "int8 products in plain C"
FD_LONG void vb_load_q4(const uint8_t *p, vb *low, vb *high)      /* 64 bytes: two groups of 16 lanes x 4 codes */
{
    for (int i = 0; i < 64; i++) { low->v[i] = p[i] & 15; high->v[i] = p[i] >> 4; }
}
static inline vb vb_load_q8(const int8_t *p) { vb r; memcpy(r.v, p, 64); return r; }
static inline vi vi_dot4(vi sum, vb codes, const int8_t *x4)
{
    FD_EACH for (int j = 0; j < 4; j++) sum.v[i] += (int32_t)codes.v[4 * i + j] * x4[j];
    return sum;
}
static inline vs vs_q4_zero(void) { return vi_set1(0); }
static inline vs vs_q4_dot(vs sum, vb codes, const int8_t *x4) { return vi_dot4(sum, codes, x4); }
static inline vi vs_q4_total(vs sum) { return sum; }
static inline vi vi_q8_start(int32_t x_sum) { (void)x_sum; return vi_set1(0); }   /* some levels count codes from -128 */
static inline vi vi_q8_dot(vi sum, vb codes, const int8_t *x4) { return vi_dot4(sum, codes, x4); }
static inline void vi_store_int8(int8_t *p, vi a) { FD_EACH p[i] = (int8_t)a.v[i]; }   /* each lane fits */
