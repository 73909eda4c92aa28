/* real.h - the words of floats or of doubles under one set of names, for bodies that are compiled for both: define FD_REAL as 32 or
 * 64, include this file, then the body.  NAME(part) is the body's name of a part, WIDE and NARROW go to doubles and back. */
#undef real
#undef vr
#undef VR
#undef NAME
#undef WIDE
#undef NARROW
#undef REAL_ROWS
#undef REAL_EXP
#undef REAL_MOST
#undef REAL_EXP_NEGATIVE
#undef REAL_OF_FLOATS
#undef REAL_OF_DOUBLES
#if FD_REAL == 64
#define real double
#define vr vd
#define VR(word) vd_##word
#define NAME(part) part##_f64
#define WIDE(x) (x)
#define NARROW(x) (x)
#define REAL_EXP(x) vd_exp(x)
#define REAL_EXP_NEGATIVE(x) vd_exp(x)                    /* of x <= 0 or NaN */
#define REAL_OF_FLOATS(x) vd_from_floats(x)
#define REAL_OF_DOUBLES(x) (x)
#define REAL_MOST(x) fd_max_lane_double(x)                /* of the lanes */
#define REAL_ROWS (FD_ROW_TILE / 2)                     /* rows of a register tile: a vd takes twice the registers */
#else
#define real float
#define vr vf
#define VR(word) vf_##word
#define NAME(part) part##_f32
#define WIDE(x) vd_from_floats(x)
#define NARROW(x) vf_from_doubles(x)
#define REAL_EXP(x) vf_exp(vf_min(vf_set1(80.0f), x))   /* saturates, as that of doubles does */
#define REAL_EXP_NEGATIVE(x) fd_exp_negative(x)
#define REAL_OF_FLOATS(x) (x)
#define REAL_OF_DOUBLES(x) vf_from_doubles(x)
#define REAL_MOST(x) fd_max_lane(x)
#define REAL_ROWS FD_ROW_TILE
#endif
#undef FD_REAL
