"use strict";
// The sphere on the screen: where it is looked at from, and its points, drawn by WebGL 2.
//
// Places are unit vectors: x to longitude 0 on the equator, z to the north pole. A view turns them so that x is to the right, y up and z towards the
// viewer, and draws them as a globe, or flat: Hammer's equal-area projection, scaled to 4 by 2.

/** Where the sphere is looked at from: what is in the middle (radians), how near, as a globe (0) or flat (1). */
class View {
  longitude = 0;
  latitude = 0;
  zoom = 1;
  flatness = 0;
  width = 1;
  height = 1;

  /** Radius of the sphere in CSS pixels. */
  get radius() {
    const globe = 0.44 * Math.min(this.width, this.height);
    const flat = Math.min(this.width / 4.15, this.height / 2.3);
    return (globe + this.flatness * (flat - globe)) * this.zoom;
  }

  /** The axes to the right, up and towards the viewer, one after the other. */
  camera() {
    const [sinLon, cosLon] = [Math.sin(this.longitude), Math.cos(this.longitude)];
    const [sinLat, cosLat] = [Math.sin(this.latitude), Math.cos(this.latitude)];
    return [
      ...[-sinLon, cosLon, 0],
      ...[-sinLat * cosLon, -sinLat * sinLon, cosLat],
      ...[cosLat * cosLon, cosLat * sinLon, sinLat],
    ];
  }

  /**
   * Project places to CSS pixels.
   * @param {Float32Array} places x, y, z of each
   * @param {Float32Array} [screen] takes x, y and nearness of each: at most 0 is out of sight
   */
  project(places, screen = new Float32Array(places.length)) {
    const c = this.camera();
    const [radius, left, top, flatness] = [this.radius, this.width / 2, this.height / 2, this.flatness];
    for (let i = 0; i < places.length; i += 3) {
      const [px, py, pz] = [places[i], places[i + 1], places[i + 2]];
      let x = px * c[0] + py * c[1] + pz * c[2];
      let y = px * c[3] + py * c[4] + pz * c[5];
      let near = px * c[6] + py * c[7] + pz * c[8];
      if (flatness > 0) {
        const half = Math.atan2(x, near) / 2;
        const cos = Math.sqrt(Math.max(0, 1 - y * y));
        const d = Math.sqrt(1 + cos * Math.cos(half));
        x += flatness * ((2 * cos * Math.sin(half)) / d - x);
        y += flatness * (y / d - y);
        near += flatness * (1 - near);
      }
      screen[i] = left + x * radius;
      screen[i + 1] = top - y * radius;
      screen[i + 2] = near;
    }
    return screen;
  }

  /** Turn by a movement of the pointer, in CSS pixels. */
  drag(dx, dy) {
    this.longitude -= dx / (this.radius * Math.max(Math.cos(this.latitude), 0.3));
    this.latitude += dy / this.radius;
    this.limit();
  }

  /** Come nearer by a factor; what is under the pointer, given from the middle, stays there. */
  approach(factor, x = 0, y = 0) {
    const before = this.radius;
    this.zoom = Math.min(Math.max(this.zoom * factor, 0.7), 60);
    const share = 1 - before / this.radius;
    const reach = Math.min(1, this.radius / (Math.hypot(x, y) * 1.2 + 1)); // beside the globe there is nothing to keep
    this.drag(-x * share * reach, -y * share * reach);
  }

  limit() {
    this.latitude = Math.min(Math.max(this.latitude, -Math.PI / 2), Math.PI / 2);
    this.longitude = Math.atan2(Math.sin(this.longitude), Math.cos(this.longitude));
  }
}

const VIEW_GLSL = `#version 300 es
precision highp float;
uniform mat3 camera;
uniform float flatness;
vec2 hammer(vec3 p) {
  float half_longitude = atan(p.x, p.z) / 2.;
  float c = sqrt(max(0., 1. - p.y * p.y));
  return vec2(2. * c * sin(half_longitude), p.y) / sqrt(1. + c * cos(half_longitude));
}`;

const POINTS = {
  vertex: `${VIEW_GLSL}
in vec3 place;
in vec4 colour;
uniform vec2 scale;
uniform float size;
out vec4 tint;
void main() {
  vec3 p = place * camera;
  float seen = mix(smoothstep(-.01, .2, p.z), 1., flatness);
  gl_Position = vec4(mix(p.xy, hammer(p), flatness) * scale, 0., 1.);
  gl_PointSize = seen > 0. ? size : 0.;
  tint = vec4(colour.rgb, seen);
}`,
  fragment: `#version 300 es
precision highp float;
in vec4 tint;
out vec4 colour;
void main() {
  float inside = 1. - smoothstep(.36, .5, length(gl_PointCoord - .5));
  colour = vec4(tint.rgb, 1.) * tint.a * inside * .9;
}`,
};

const SURFACE = {
  vertex: `#version 300 es
in vec2 corner;
uniform vec2 scale;
out vec2 at;
void main() {
  gl_Position = vec4(corner, 0., 1.);
  at = corner / scale;
}`,
  fragment: `${VIEW_GLSL}
in vec2 at;
uniform vec3 middle, edge, lines;
uniform float pixel;
out vec4 colour;
float grid(vec3 p) {
  vec3 place = camera * p;
  float latitude = asin(clamp(place.z, -1., 1.)), longitude = atan(place.y, place.x);
  // How much both change from pixel to pixel; the longitude jumps where it begins again, its change does not.
  vec3 dx = dFdx(place), dy = dFdy(place);
  float across = max(dot(place.xy, place.xy), 1e-6);
  float change = length(vec2(place.x * dx.y - place.y * dx.x, place.x * dy.y - place.y * dy.x)) / across;
  float every = radians(30.);
  float a = abs(fract(latitude / every + .5) - .5) * every / length(vec2(dFdx(latitude), dFdy(latitude)));
  float b = abs(fract(longitude / every + .5) - .5) * every / change;
  return 1. - smoothstep(.5, 1.3, min(a, across < .01 ? 2. : b));
}
void main() {
  float r = length(at), z = sqrt(max(0., 1. - r * r));
  float on_globe = 1. - smoothstep(1. - pixel * 1.5, 1., r);
  vec3 globe = mix(edge, middle, pow(z, .55));
  globe = mix(globe, lines, .55 * grid(vec3(at, z)));
  float e = sqrt(at.x * at.x / 4. + at.y * at.y), w2 = 1. - at.x * at.x / 8. - at.y * at.y / 2.;
  float w = sqrt(max(w2, 0.)), longitude = 2. * atan(w * at.x * 1.41421356, 2. * (2. * w2 - 1.));
  float sine = clamp(w * at.y * 1.41421356, -1., 1.), cosine = sqrt(1. - sine * sine);
  float on_flat = 1. - smoothstep(1. - pixel * 1.5, 1., e);
  vec3 flat_ = mix(middle, lines, .55 * grid(vec3(cosine * sin(longitude), sine, cosine * cos(longitude))));
  float covered = mix(on_globe, on_flat, flatness);
  colour = vec4(mix(globe, flat_, flatness), 1.) * covered;
}`,
};

/** Draws the surface of the sphere and a point for every photo. */
class Sphere {
  constructor(canvas, places) {
    const gl = canvas.getContext("webgl2", { antialias: false, alpha: true });
    if (!gl) throw new Error("this browser has no WebGL 2");
    this.gl = gl;
    this.n = places.length / 3;
    this.surface = this.program(SURFACE);
    this.points = this.program(POINTS);
    this.surfaceArray = this.array(this.surface, { corner: [new Float32Array([-1, -1, 3, -1, -1, 3]), 2] });
    this.pointArray = this.array(this.points, { place: [places, 3], colour: [new Uint8Array(4 * this.n), 4] });
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  }

  program({ vertex, fragment }) {
    const gl = this.gl;
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
      if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    }
    gl.linkProgram(program);
    return program;
  }

  array(program, attributes) {
    const gl = this.gl;
    const array = gl.createVertexArray();
    gl.bindVertexArray(array);
    for (const [name, [data, size]] of Object.entries(attributes)) {
      this[name] = gl.createBuffer();
      gl.bindBuffer(gl.ARRAY_BUFFER, this[name]);
      gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
      const at = gl.getAttribLocation(program, name);
      const isBytes = data instanceof Uint8Array;
      gl.enableVertexAttribArray(at);
      gl.vertexAttribPointer(at, size, isBytes ? gl.UNSIGNED_BYTE : gl.FLOAT, isBytes, 0, 0);
    }
    return array;
  }

  /** Colours of all points: red, green, blue, 255 of each. */
  paint(colours) {
    this.gl.bindBuffer(this.gl.ARRAY_BUFFER, this.colour);
    this.gl.bufferData(this.gl.ARRAY_BUFFER, colours, this.gl.STATIC_DRAW);
  }

  /** @param {{middle, edge, lines}} theme colours as red, green and blue in [0, 1] */
  draw(view, theme, pointSize) {
    const gl = this.gl;
    const ratio = gl.canvas.width / view.width;
    const scale = [(2 * view.radius) / view.width, (2 * view.radius) / view.height];
    gl.viewport(0, 0, gl.canvas.width, gl.canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    for (const [program, array] of [[this.surface, this.surfaceArray], [this.points, this.pointArray]]) {
      const uniform = (name) => gl.getUniformLocation(program, name);
      gl.useProgram(program);
      gl.bindVertexArray(array);
      gl.uniformMatrix3fv(uniform("camera"), false, view.camera());
      gl.uniform1f(uniform("flatness"), view.flatness);
      gl.uniform2fv(uniform("scale"), scale);
      if (program === this.surface) {
        for (const name of ["middle", "edge", "lines"]) gl.uniform3fv(uniform(name), theme[name]);
        gl.uniform1f(uniform("pixel"), 1 / (view.radius * ratio));
        gl.drawArrays(gl.TRIANGLES, 0, 3);
      } else {
        gl.uniform1f(uniform("size"), pointSize * ratio);
        gl.drawArrays(gl.POINTS, 0, this.n);
      }
    }
  }
}
