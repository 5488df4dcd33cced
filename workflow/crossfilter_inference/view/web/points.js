// The photos' points, drawn by WebGL 2.

/** @import { View } from "./sphere.js" */

const VERTEX_SHADER = `#version 300 es
uniform mat3 camera;
uniform float flatness, size;
uniform vec2 middle, scale;
in vec3 place;
in vec4 colour;
out vec4 tint;
vec2 hammer(vec3 p) {
  float half_longitude = atan(p.x, p.z) / 2.;
  float c = sqrt(max(0., 1. - p.y * p.y));
  return vec2(2. * c * sin(half_longitude), p.y) / sqrt(1. + c * cos(half_longitude));
}
void main() {
  vec3 p = place * camera;
  float seen = mix(smoothstep(-.01, .2, p.z), 1., flatness);
  vec2 at = flatness > 0. ? mix(p.xy, hammer(p), flatness) : p.xy;
  gl_Position = seen > 0. ? vec4(at * scale + middle, 0., 1.) : vec4(2.); // out of sight
  gl_PointSize = size;
  tint = vec4(colour.rgb, seen * colour.a);
}`;

const FRAGMENT_SHADER = `#version 300 es
precision mediump float;
in vec4 tint;
out vec4 colour;
void main() {
  float inside = 1. - smoothstep(.36, .5, length(gl_PointCoord - .5));
  colour = vec4(tint.rgb, 1.) * tint.a * inside * .9;
}`;

/** Draws a point for every photo. */
export class Points {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {Float32Array<ArrayBuffer>} places x, y, z of each photo
   */
  constructor(canvas, places) {
    const gl = canvas.getContext("webgl2", { antialias: false });
    if (!gl) throw new Error("this browser does not support WebGL 2");
    this.gl = gl;
    this.n = places.length / 3;
    this.program = this.compile();
    this.places = this.attribute("place", places, 3);
    this.colours = this.attribute("colour", new Uint8Array(4 * this.n), 4);
    gl.useProgram(this.program);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  }

  /** @returns {WebGLProgram} */
  compile() {
    const gl = this.gl;
    const program = gl.createProgram();
    for (const [kind, source] of /** @type {[number, string][]} */ ([
      [gl.VERTEX_SHADER, VERTEX_SHADER],
      [gl.FRAGMENT_SHADER, FRAGMENT_SHADER],
    ])) {
      const shader = gl.createShader(kind);
      if (!shader) throw new Error("WebGL 2 stopped working");
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader) ?? "");
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    return program;
  }

  /**
   * Give each point some numbers.
   * @param {string} name of the shader's input
   * @param {Float32Array<ArrayBuffer> | Uint8Array<ArrayBuffer>} values bytes become numbers from 0 to 1
   * @param {number} size numbers of a point
   * @returns {WebGLBuffer}
   */
  attribute(name, values, size) {
    const gl = this.gl;
    const isBytes = values instanceof Uint8Array;
    const buffer = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
    const at = gl.getAttribLocation(this.program, name);
    gl.enableVertexAttribArray(at);
    gl.vertexAttribPointer(at, size, isBytes ? gl.UNSIGNED_BYTE : gl.FLOAT, isBytes, 0, 0);
    return buffer;
  }

  /**
   * Move all points.
   * @param {Float32Array<ArrayBuffer>} places x, y, z of each
   */
  move(places) {
    this.gl.bindBuffer(this.gl.ARRAY_BUFFER, this.places);
    this.gl.bufferData(this.gl.ARRAY_BUFFER, places, this.gl.DYNAMIC_DRAW);
  }

  /**
   * Set the colours of all points.
   * @param {Uint8Array<ArrayBuffer>} colours red, green, blue and opacity of each
   */
  paint(colours) {
    this.gl.bindBuffer(this.gl.ARRAY_BUFFER, this.colours);
    this.gl.bufferData(this.gl.ARRAY_BUFFER, colours, this.gl.STATIC_DRAW);
  }

  /**
   * @param {View} view
   * @param {number} size of a point, in CSS pixels
   */
  draw(view, size) {
    const gl = this.gl;
    const uniform = (/** @type {string} */ name) => gl.getUniformLocation(this.program, name);
    gl.viewport(0, 0, gl.canvas.width, gl.canvas.height);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.uniformMatrix3fv(uniform("camera"), false, view.camera());
    gl.uniform1f(uniform("flatness"), view.flatness);
    const [x, y] = view.middle;
    gl.uniform2f(uniform("middle"), (2 * x) / view.width - 1, 1 - (2 * y) / view.height);
    gl.uniform1f(uniform("size"), (size * gl.canvas.width) / view.width);
    gl.uniform2f(uniform("scale"), (2 * view.radius) / view.width, (2 * view.radius) / view.height);
    gl.drawArrays(gl.POINTS, 0, this.n);
  }
}
